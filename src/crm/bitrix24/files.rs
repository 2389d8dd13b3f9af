//! Files that operators attach: fetched at the portal by the public link of their message (protocol reference, section
//! "Outgoing events", read 2026-11).

use url::Url;

use super::Bitrix24;
use super::errors::own;
use super::oauth::same_origin;
use crate::domain::effect::{CrmError, PortalTrouble};
use crate::domain::outcome::FailureClass;
use crate::domain::portal::Portal;
use crate::outbound::download::Download;
use crate::outbound::{Call, CallError};

/// The short link leads to the file by a redirect or two.
const TURNS: usize = 5;

impl Bitrix24 {
    /// Opens a file of a portal. Only the portal itself is called, wherever a link or a redirect leads: an event could
    /// name any address, and so could a portal.
    pub(super) async fn open_file(&self, portal: &Portal, link: &str) -> Result<Download, CrmError> {
        let refused = |what: &str| own(FailureClass::Rejected, PortalTrouble::None, "file_refused", what);
        let base = Url::parse(&self.client.tokens.endpoint(portal)).map_err(|_none| refused("no portal"))?;
        let mut url = base.join(link.trim()).map_err(|_none| refused("no address"))?;
        for _ in 0..TURNS {
            if link.trim().is_empty() || !same_origin(&url, &base) {
                return Err(refused("not an address of the portal"));
            }
            let download = self.client.outbound.open(Call::get(url.as_str())).await.map_err(|error| match error {
                CallError::Refused(why) => refused(&why),
                CallError::NotConnected(why) | CallError::NoAnswer(why) => {
                    own(FailureClass::Unavailable, PortalTrouble::None, "file_unavailable", why)
                }
            })?;
            match download.status {
                200 => return Ok(download),
                301 | 302 | 303 | 307 | 308 => {
                    let to = download.header("location").unwrap_or_default();
                    url = url.join(to).map_err(|_none| refused("a redirect to no address"))?;
                }
                429 | 500.. => {
                    let text = format!("HTTP {}", download.status);
                    return Err(own(FailureClass::Unavailable, PortalTrouble::None, "file_unavailable", text));
                }
                status => return Err(refused(&format!("HTTP {status}"))),
            }
        }
        Err(refused("redirects without end"))
    }
}
