//! Which methods exist, under which scope, and for whom.

use std::{collections::HashMap, sync::LazyLock};

use super::{
    automation, crm, disk, handlers, messageservice, openlines,
    rest::{Answer, Hit, RestError},
    robots, system,
};
use crate::php::Php;

type Run = fn(&mut Hit<'_>, &Php) -> Result<Answer, RestError>;

/// One REST method.
pub(crate) struct MethodSpec {
    pub(crate) name: &'static str,
    /// Empty = any token.
    pub(crate) scope: &'static str,
    /// Only with an administrator's token.
    pub(crate) admin: bool,
    pub(crate) run: Run,
}

const fn any(name: &'static str, run: Run) -> MethodSpec {
    MethodSpec { name, scope: "", admin: false, run }
}

const fn scoped(name: &'static str, scope: &'static str, run: Run) -> MethodSpec {
    MethodSpec { name, scope, admin: false, run }
}

const fn admin(name: &'static str, scope: &'static str, run: Run) -> MethodSpec {
    MethodSpec { name, scope, admin: true, run }
}

static METHODS: &[MethodSpec] = &[
    any("app.info", system::app_info),
    any("app.option.get", system::app_option_get),
    admin("app.option.set", "", system::app_option_set),
    any("user.option.get", system::user_option_get),
    any("user.option.set", system::user_option_set),
    any("scope", system::scope),
    any("methods", system::methods),
    any("method.get", system::method_get),
    any("feature.get", system::feature_get),
    any("profile", system::profile),
    any("server.time", system::server_time),
    any("user.admin", system::user_admin),
    scoped("user.current", "user", system::user_current),
    scoped("user.get", "user", system::user_get),
    any("event.bind", handlers::event_bind),
    any("event.unbind", handlers::event_unbind),
    any("event.get", handlers::event_get),
    any("events", handlers::events),
    any("event.test", handlers::event_test),
    admin("placement.bind", "placement", handlers::placement_bind),
    admin("placement.unbind", "placement", handlers::placement_unbind),
    admin("placement.get", "placement", handlers::placement_get),
    scoped("placement.list", "placement", handlers::placement_list),
    admin("bizproc.robot.add", "bizproc", robots::robot_add),
    admin("bizproc.robot.update", "bizproc", robots::robot_update),
    admin("bizproc.robot.delete", "bizproc", robots::robot_delete),
    admin("bizproc.robot.list", "bizproc", robots::robot_list),
    admin("bizproc.activity.add", "bizproc", robots::activity_add),
    admin("bizproc.activity.update", "bizproc", robots::activity_update),
    admin("bizproc.activity.delete", "bizproc", robots::activity_delete),
    admin("bizproc.activity.list", "bizproc", robots::activity_list),
    scoped("bizproc.event.send", "bizproc", automation::event_send),
    scoped("bizproc.activity.log", "bizproc", automation::activity_log),
    admin("messageservice.sender.add", "messageservice", messageservice::sender_add),
    admin("messageservice.sender.update", "messageservice", messageservice::sender_update),
    admin("messageservice.sender.delete", "messageservice", messageservice::sender_delete),
    admin("messageservice.sender.list", "messageservice", messageservice::sender_list),
    scoped("messageservice.message.status.update", "messageservice", messageservice::status_update),
    scoped("messageservice.message.status.get", "messageservice", messageservice::status_get),
    scoped("imconnector.register", "imopenlines", openlines::register),
    scoped("imconnector.unregister", "imopenlines", openlines::unregister),
    scoped("imconnector.activate", "imopenlines", openlines::activate),
    scoped("imconnector.status", "imopenlines", openlines::status),
    scoped("imconnector.connector.data.set", "imopenlines", openlines::data_set),
    scoped("imconnector.set.error", "imopenlines", openlines::set_error),
    scoped("imconnector.list", "imopenlines", openlines::list),
    scoped("imconnector.chat.name.set", "imopenlines", openlines::name_set),
    scoped("imconnector.send.messages", "imopenlines", openlines::send),
    scoped("imconnector.update.messages", "imopenlines", openlines::update),
    scoped("imconnector.delete.messages", "imopenlines", openlines::delete),
    scoped("imconnector.send.status.delivery", "imopenlines", openlines::send_delivery),
    scoped("imopenlines.session.history.get", "imopenlines", openlines::history_get),
    scoped("im.message.add", "im", openlines::message_add),
    scoped("im.notify.system.add", "im", openlines::notify_add),
    scoped("disk.file.get", "disk", disk::file_get),
    scoped("crm.documentgenerator.document.get", "crm", disk::document_get),
    scoped("crm.documentgenerator.document.list", "crm", disk::document_list),
    scoped("crm.item.get", "crm", crm::read::item_get),
    scoped("crm.item.list", "crm", crm::read::item_list),
    scoped("crm.item.add", "crm", crm::write::item_add),
    scoped("crm.item.update", "crm", crm::write::item_update),
    scoped("crm.deal.get", "crm", crm::legacy::deal_get),
    scoped("crm.lead.get", "crm", crm::legacy::lead_get),
    scoped("crm.contact.get", "crm", crm::legacy::contact_get),
    scoped("crm.company.get", "crm", crm::legacy::company_get),
    scoped("crm.deal.contact.items.get", "crm", crm::legacy::deal_contacts),
    scoped("crm.lead.contact.items.get", "crm", crm::legacy::lead_contacts),
    scoped("crm.company.contact.items.get", "crm", crm::legacy::company_contacts),
    scoped("crm.duplicate.findbycomm", "crm", crm::legacy::find_by_comm),
    scoped("crm.type.list", "crm", crm::legacy::type_list),
    scoped("crm.status.list", "crm", crm::legacy::status_list),
    scoped("crm.category.list", "crm", crm::legacy::category_list),
    scoped("crm.stagehistory.list", "crm", crm::history::list),
    scoped("crm.timeline.comment.add", "crm", crm::timeline::comment_add),
    scoped("crm.timeline.comment.update", "crm", crm::timeline::comment_update),
    scoped("crm.timeline.comment.delete", "crm", crm::timeline::comment_delete),
    scoped("crm.timeline.comment.get", "crm", crm::timeline::comment_get),
    scoped("crm.timeline.comment.list", "crm", crm::timeline::comment_list),
    scoped("crm.timeline.logmessage.add", "crm", crm::timeline::log_add),
];

static BY_NAME: LazyLock<HashMap<&'static str, &'static MethodSpec>> =
    LazyLock::new(|| METHODS.iter().map(|spec| (spec.name, spec)).collect());

pub(crate) fn find(method: &str) -> Option<&'static MethodSpec> {
    BY_NAME.get(method).copied()
}

/// Names of the methods that a token with these scopes may call, `batch` among them.
pub(crate) fn names<'a>(scopes: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    let allowed = |spec: &&MethodSpec| spec.scope.is_empty() || scopes.iter().any(|own| grants(own, spec.scope));
    std::iter::once("batch").chain(METHODS.iter().filter(move |spec| allowed(spec)).map(|spec| spec.name))
}

/// Whether the granted scope covers the wanted one; the smaller user scopes open the same methods (§1.9).
pub(crate) fn grants(own: &str, wanted: &str) -> bool {
    own == wanted || (wanted == "user" && matches!(own, "user_brief" | "user_basic"))
}
