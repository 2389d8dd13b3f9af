//! Archives in the ZIP format, without compression: a widget is small, and its pictures are compressed already.

use crc::{CRC_32_ISO_HDLC, Crc};

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Version of the format that is needed to read the archive: 2.0.
const NEEDED: u16 = 20;
/// Names are UTF-8.
const FLAGS: u16 = 0x0800;
/// First of January 1980, the zero of the format: the same files make the same archive, byte for byte.
const DATE: u16 = 0x0021;

/// Puts files into an archive, in their order. Names use `/` and stand at the root.
///
/// # Errors
/// A text for the operator: more or longer files than the plain format can hold.
pub(super) fn archive(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let too_large = |name: &str| format!("{name}: too large for the archive");
    let count = u16::try_from(files.len()).map_err(|_many| "too many files for the archive".to_owned())?;
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let size = u32::try_from(content.len()).map_err(|_large| too_large(name))?;
        let length = u16::try_from(name.len()).map_err(|_long| too_large(name))?;
        let offset = u32::try_from(out.len()).map_err(|_large| too_large(name))?;
        let mut shared = Vec::with_capacity(26);
        for part in [NEEDED, FLAGS, 0, 0, DATE] {
            shared.extend(part.to_le_bytes());
        }
        for part in [CRC.checksum(content), size, size] {
            shared.extend(part.to_le_bytes());
        }
        shared.extend(length.to_le_bytes());
        shared.extend(0_u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&shared);
        out.extend(name.as_bytes());
        out.extend(content);
        directory.extend(b"PK\x01\x02");
        directory.extend(NEEDED.to_le_bytes());
        directory.extend(&shared);
        // Comment, disk, attributes inside and outside: none.
        directory.extend([0_u8; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = u32::try_from(out.len()).map_err(|_large| too_large("files"))?;
    let length = u32::try_from(directory.len()).map_err(|_large| too_large("directory"))?;
    out.extend(&directory);
    out.extend(b"PK\x05\x06");
    for part in [0, 0, count, count] {
        out.extend(part.to_le_bytes());
    }
    out.extend(length.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    Ok(out)
}
