//! Card types and their many names. Source: §6.2 (documents), §8.1.

pub(crate) const LEAD: i64 = 1;
pub(crate) const DEAL: i64 = 2;
pub(crate) const CONTACT: i64 = 3;
pub(crate) const COMPANY: i64 = 4;
/// Smart processes have this type id or a larger one.
pub(crate) const SMART_FROM: i64 = 128;

/// Name in timelines and in our change feed.
pub(crate) fn name(type_id: i64) -> String {
    match type_id {
        LEAD => "lead".into(),
        DEAL => "deal".into(),
        CONTACT => "contact".into(),
        COMPANY => "company".into(),
        7 => "quote".into(),
        14 => "order".into(),
        31 => "smart_invoice".into(),
        other => format!("dynamic_{other}"),
    }
}

/// Type id behind a name; case-insensitive.
pub(crate) fn of_name(name: &str) -> Option<i64> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "lead" => Some(LEAD),
        "deal" => Some(DEAL),
        "contact" => Some(CONTACT),
        "company" => Some(COMPANY),
        "quote" => Some(7),
        "order" => Some(14),
        "smart_invoice" => Some(31),
        other => other.strip_prefix("dynamic_")?.parse().ok().filter(|id| *id >= SMART_FROM),
    }
}

/// `deal:134`, as the change feed names cards.
pub(crate) fn card(type_id: i64, id: i64) -> String {
    format!("{}:{id}", name(type_id))
}

/// A workflow document.
pub(crate) struct Document {
    pub(crate) id: [String; 3],
    pub(crate) kind: [String; 3],
}

pub(crate) fn document(type_id: i64, id: i64) -> Document {
    let entity = match type_id {
        LEAD => "CCrmDocumentLead",
        DEAL => "CCrmDocumentDeal",
        CONTACT => "CCrmDocumentContact",
        COMPANY => "CCrmDocumentCompany",
        7 => "Bitrix\\Crm\\Integration\\BizProc\\Document\\Quote",
        14 => "Bitrix\\Crm\\Integration\\BizProc\\Document\\Order",
        31 => "Bitrix\\Crm\\Integration\\BizProc\\Document\\SmartInvoice",
        _ => "Bitrix\\Crm\\Integration\\BizProc\\Document\\Dynamic",
    };
    let prefix = name(type_id).to_ascii_uppercase();
    let full = format!("{prefix}_{id}");
    Document { id: ["crm".into(), entity.into(), full], kind: ["crm".into(), entity.into(), prefix] }
}
