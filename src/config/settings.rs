//! What the daemon runs by.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::{Document, Section};
use super::fleet::{self, FleetSettings};
use super::ledger;
use super::reach::EndpointSettings;
use crate::intake::HeartbeatOptions;
use crate::ledger::{FenceOptions, LedgerOptions};
use crate::store::{
    BandwidthLimit, ChecksumKind, Conditions, CustomerKey, Encryption, KeyLayout, LimitScope, ObjectKey, ObjectOptions,
    Records, TargetOptions, Thaw, ThawTier, VerifyImported, check_proxy,
};
use crate::telemetry::{CompletionOptions, LogFormat};
use crate::transfer::{PlanOptions, RetryOptions, TransferOptions};
use crate::types::ArchiveId;
use crate::worker::OnForgotten;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Of a bandwidth: a chunk must get through before the stall watch sees nothing move.
const MIN_RATE: u64 = 64 << 10;
const MAX_RATE: u64 = 1 << 50;

/// What becomes of actions that are in hand when the daemon is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnStop {
    /// They stay in the journal, and a successor goes on with them.
    #[default]
    Keep,
    /// The coordinator is told that they are not done.
    Answer,
}

/// All of it, valid.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The Lustre mount point.
    pub mount: PathBuf,
    /// liblustreapi.
    pub library: PathBuf,
    /// Where the journal is.
    pub state_dir: PathBuf,
    /// Between two confirmations of the registration.
    pub keepalive: Duration,
    /// Reports to the coordinator.
    pub heartbeat: HeartbeatOptions,
    /// Extended attributes that no object gets, though they look like users'.
    pub system_xattrs: Vec<String>,
    /// Whether MDTs let files with a copy go to other MDTs, where their FIDs are others.
    pub migrate_hsm_allowed: bool,
    /// Whether another copytool on the mount keeps this one from registering.
    pub heeds_other_tools: bool,
    /// What to do about archives that the coordinator forgot.
    pub forgotten: OnForgotten,
    /// Worker threads, each with one request at a time.
    pub threads: usize,
    /// Of these, for restores only.
    pub restore_threads: usize,
    /// What becomes of actions that are in hand when the daemon is stopped.
    pub on_stop: OnStop,
    /// What running actions get to finish in when the daemon is stopped.
    pub drain_timeout: Duration,
    /// Multipart uploads that are older and nobody's are aborted at the start.
    pub abort_uploads_after: Duration,
    /// How bytes are moved.
    pub transfer: TransferOptions,
    /// The buckets; one at least.
    pub targets: Vec<TargetOptions>,
    /// `tracing` directives.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where events are written as the reference copytool writes them.
    pub event_fifo: Option<PathBuf>,
    /// Between two events of a running action.
    pub event_interval: Duration,
    /// Where a line is written for each action that ended.
    pub completions: Option<CompletionOptions>,
    /// Where the movers of the site serve theirs, `host:port`.
    pub movers: Vec<String>,
    /// What the servers know this node by; `None`: what LNet tells.
    pub nids: Option<Vec<String>>,
    /// How dead movers' nodes are fenced; `None`: not at all.
    pub fence: Option<FenceOptions>,
    /// The copy of the journal that other movers read; `None`: this one works alone.
    pub ledger: Option<LedgerOptions>,
}

impl Settings {
    /// `None`, or something half valid, when the document has had problems reported.
    pub(super) fn from_document(
        document: &Document<'_>,
        mount: Option<&Path>,
        variables: &HashMap<String, String>,
    ) -> Option<Self> {
        let root = document.root();

        let lustre = root.section("lustre");
        let configured = lustre.string("mount").map(PathBuf::from);
        let mount = mount.map(Path::to_owned).or(configured);
        if mount.is_none() {
            document.report(
                None,
                "no mount point: set `mount` in section [lustre] or give it as the argument".into(),
            );
        }
        let library = lustre.string("library").unwrap_or_else(|| "liblustreapi.so.1".into());
        let state_dir = lustre
            .string("state_dir")
            .unwrap_or_else(|| "/var/lib/lhsmtool-s3".into());
        let ms = Duration::from_millis;
        let keepalive = lustre.duration("keepalive", ms(100)..=DAY).unwrap_or(30 * SECOND);
        let heartbeat = HeartbeatOptions {
            waiting: lustre.duration("heartbeat", ms(100)..=DAY).unwrap_or(120 * SECOND),
            running: lustre.duration("progress", ms(100)..=DAY).unwrap_or(15 * SECOND),
            per_second: lustre.number("heartbeats_per_second", 1..=1_000_000).unwrap_or(2000),
        };
        let system_xattrs = lustre
            .strings("system_xattrs")
            .unwrap_or_else(|| vec!["user.job".into()]);
        let migrate_hsm_allowed = lustre.bool("migrate_hsm_allowed").unwrap_or(false);
        let heeds_other_tools = lustre
            .choice("other_tool", &[("refuse", true), ("ignore", false)])
            .unwrap_or(true);
        let forgotten = lustre
            .choice(
                "forgotten",
                &[("ask-again", OnForgotten::AskAgain), ("log", OnForgotten::Log)],
            )
            .unwrap_or_default();
        lustre.finish();

        let workers = root.section("workers");
        let threads = workers.number("threads", 2..=4096).unwrap_or(32);
        let restore_threads = workers
            .number("restore_threads", 1..=4095)
            .unwrap_or(threads.div_ceil(4));
        if restore_threads >= threads {
            workers.complain(
                "restore_threads",
                &format!(
                    "restore_threads = {restore_threads} must be below threads = {threads}, or nothing would archive"
                ),
            );
        }
        let on_stop = workers
            .choice("on_stop", &[("keep", OnStop::Keep), ("answer", OnStop::Answer)])
            .unwrap_or_default();
        let drain_timeout = workers
            .duration("drain_timeout", Duration::ZERO..=DAY)
            .unwrap_or(60 * SECOND);
        workers.finish();

        let (transfer, abort_uploads_after) = transfer(&root).unzip();
        let connect_timeout = 10 * SECOND;
        let targets = targets(document, &root, connect_timeout, variables);

        let log = root.section("log");
        let log_level = log.string("level").unwrap_or_else(|| "info".into());
        if let Err(error) = log_level.parse::<tracing_subscriber::filter::Targets>() {
            log.complain(
                "level",
                &format!("level = \"{log_level}\": {error}; use error, warn, info, debug or trace"),
            );
        }
        let metrics_section = root.section("metrics");
        let metrics = metrics_section.string("listen").and_then(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                metrics_section.complain(
                    "listen",
                    &format!("listen = \"{text}\" must be an address and a port, such as \"127.0.0.1:9818\""),
                );
            }
            address
        });
        metrics_section.finish();
        let events = root.section("events");
        let event_fifo = events.string("fifo").map(PathBuf::from);
        let event_interval = events.duration("interval", SECOND..=DAY).unwrap_or(30 * SECOND);
        events.finish();
        let log_section = root.section("completions");
        let size = log_section.size("size", (64 << 10)..=(1 << 40)).unwrap_or(64 * MIB);
        let keep = log_section.number("keep", 0..=1000).unwrap_or(5);
        let completions = log_section.string("path").map(|path| CompletionOptions {
            path: path.into(),
            size,
            keep,
        });
        log_section.finish();
        let ledger = ledger::read(root.section("ledger"));
        let FleetSettings { movers, nids, fence } = fleet::read(root.section("fleet"), ledger.is_some());
        // Without a list, this node's own.
        let own = || {
            metrics
                .filter(|address: &SocketAddr| address.port() != 0)
                .map(|address| vec![address.to_string()])
        };
        let movers = movers.or_else(own).unwrap_or_default();
        let log_format = log
            .choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
            .unwrap_or_default();
        log.finish();
        root.finish();

        Some(Self {
            mount: mount?,
            library: library.into(),
            state_dir: state_dir.into(),
            keepalive,
            heartbeat,
            system_xattrs,
            migrate_hsm_allowed,
            heeds_other_tools,
            forgotten,
            threads: usize::try_from(threads).ok()?,
            restore_threads: usize::try_from(restore_threads).ok()?,
            on_stop,
            drain_timeout,
            abort_uploads_after: abort_uploads_after?,
            transfer: transfer?,
            targets,
            log_level,
            log_format,
            metrics,
            event_fifo,
            event_interval,
            completions,
            movers,
            nids,
            fence,
            ledger,
        })
    }
}

/// Whether a text can be a mover's address.
#[must_use]
pub fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn transfer(root: &Section<'_>) -> Option<(TransferOptions, Duration)> {
    let section = root.section("transfer");
    let plan = PlanOptions {
        threshold: section
            .size("multipart_threshold", 5 * MIB..=5 * GIB)
            .unwrap_or(32 * MIB),
        part_size: section.size("part_size", 5 * MIB..=5 * GIB).unwrap_or(16 * MIB),
    };
    let chunk = section.size("chunk_size", 4 << 10..=16 * MIB).unwrap_or(128 << 10);
    let retry = RetryOptions {
        stall: section
            .duration("stall_timeout", Duration::from_millis(100)..=DAY)
            .unwrap_or(30 * SECOND),
        give_up_after: section
            .duration("give_up_after", Duration::ZERO..=30 * DAY)
            .unwrap_or(1800 * SECOND),
        first_pause: Duration::from_millis(200),
        longest_pause: 20 * SECOND,
        afterwards: 5 * SECOND,
    };
    let abort_uploads_after = section
        .duration("abort_uploads_after", SECOND..=3650 * DAY)
        .unwrap_or(7 * DAY);
    let thaw_poll = section
        .duration("thaw_poll", Duration::from_millis(100)..=DAY)
        .unwrap_or(300 * SECOND);
    section.finish();
    let options = TransferOptions {
        plan,
        retry,
        thaw_poll,
        chunk: usize::try_from(chunk).ok()?,
    };
    Some((options, abort_uploads_after))
}

fn choices(section: &Section<'_>) -> ObjectOptions {
    let kms_key = section.string("kms_key_id");
    let key_file = section.string("customer_key_file");
    let customer_key = key_file.and_then(|path| match std::fs::read(&path) {
        Ok(content) => CustomerKey::from_file(&content).or_else(|| {
            section.complain(
                "customer_key_file",
                &format!("'{path}' must hold a key of 32 bytes, as they are or in base64"),
            );
            None
        }),
        Err(error) => {
            section.complain("customer_key_file", &format!("can't read '{path}': {error}"));
            None
        }
    });
    let kind = section.choice(
        "encryption",
        &[("bucket", 0), ("sse-s3", 1), ("sse-kms", 2), ("sse-c", 3)],
    );
    let encryption = match (kind.unwrap_or(0), customer_key) {
        (1, _) => Encryption::S3,
        (2, _) => Encryption::Kms(kms_key),
        (3, Some(key)) => Encryption::Customer(key),
        (3, None) => {
            section.complain("encryption", "encryption = \"sse-c\" needs `customer_key_file`");
            Encryption::Bucket
        }
        _ => Encryption::Bucket,
    };
    let tags = section.string("tags").unwrap_or_default();
    let tags = tags
        .split(',')
        .filter(|tag| !tag.trim().is_empty())
        .filter_map(|tag| {
            let pair = tag.split_once('=');
            if pair.is_none() {
                section.complain("tags", &format!("tags: '{tag}' must be name=value, several by commas"));
            }
            pair.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        })
        .collect();
    let tier = section.choice(
        "thaw_tier",
        &[
            ("expedited", ThawTier::Expedited),
            ("standard", ThawTier::Standard),
            ("bulk", ThawTier::Bulk),
        ],
    );
    let thaw = Thaw::default();
    ObjectOptions {
        encryption,
        storage_class: section.string("storage_class"),
        tags,
        acl: section.string("acl"),
        thaw: Thaw {
            tier: tier.unwrap_or(thaw.tier),
            days: section.number("thaw_days", 1..=365).unwrap_or(thaw.days),
        },
    }
}

fn bandwidth(section: &Section<'_>, key: &'static str, has_ledger: bool) -> Option<BandwidthLimit> {
    let words = [("mover", LimitScope::Mover), ("fleet", LimitScope::Fleet)];
    let (rate, scope) = section.scoped_size(key, MIN_RATE..=MAX_RATE, &words)?;
    if scope == LimitScope::Fleet && !has_ledger {
        section.complain(
            key,
            &format!(
                "`{key}` with scope = \"fleet\" has no meaning without `url` in section [ledger], by which movers know of each \
                 other"
            ),
        );
    }
    Some(BandwidthLimit { rate, scope })
}

fn targets(
    document: &Document<'_>,
    root: &Section<'_>,
    connect_timeout: Duration,
    variables: &HashMap<String, String>,
) -> Vec<TargetOptions> {
    let sections = root.sections("archive");
    if sections.is_empty() && document.problems().is_empty() {
        document.report(
            None,
            "no archive: add a section [[archive]] with `id` and `bucket`".into(),
        );
    }
    let mut ids = HashSet::new();
    let has_ledger = root.has("ledger", "url");
    sections
        .into_iter()
        .filter_map(|section| {
            let id = section.number("id", 1..=i32::MAX.unsigned_abs());
            if id.is_none() {
                section.complain("id", "`id` is needed: the archive id, from 1");
            }
            let bucket = section.string("bucket").filter(|bucket| !bucket.is_empty());
            if bucket.is_none() {
                section.complain("bucket", "`bucket` is needed: the bucket's name");
            }
            if let Some(id) = id
                && !ids.insert(id)
            {
                section.complain(
                    "id",
                    &format!("id = {id} stands in another [[archive]] section already"),
                );
            }
            let EndpointSettings {
                endpoint_url,
                region,
                profile,
                path_style,
                sign_payload,
                ca_bundle,
                use_fips_endpoint,
                use_dualstack_endpoint,
                use_accelerate_endpoint,
            } = EndpointSettings::read(&section, bucket.as_deref().unwrap_or_default(), variables);
            let prefix = section.string("prefix").unwrap_or_default();
            if let Err(error) = ObjectKey::check_prefix(&prefix) {
                section.complain("prefix", &format!("`prefix` leaves no room for keys: {error}"));
            }
            let target = TargetOptions {
                archive_id: ArchiveId::new(id.unwrap_or(1))?,
                bucket: bucket.clone().unwrap_or_default(),
                prefix,
                layout: section
                    .choice("layout", &[("path", KeyLayout::Path), ("fid", KeyLayout::Fid)])
                    .unwrap_or_default(),
                records: section
                    .choice(
                        "record",
                        &[("when-needed", Records::WhenNeeded), ("always", Records::Always)],
                    )
                    .unwrap_or_default(),
                path_style,
                endpoint_url,
                region,
                profile,
                checksum: section
                    .choice(
                        "checksum",
                        &[
                            ("crc64nvme", ChecksumKind::Crc64Nvme),
                            ("crc32c", ChecksumKind::Crc32c),
                            ("sha256", ChecksumKind::Sha256),
                            ("none", ChecksumKind::None),
                        ],
                    )
                    .unwrap_or_default(),
                sign_payload,
                connect_timeout,
                ca_bundle,
                proxy: section.string("proxy").filter(|url| {
                    check_proxy(url)
                        .inspect_err(|error| section.complain("proxy", &format!("proxy = \"{url}\": {error}")))
                        .is_ok()
                }),
                choices: choices(&section),
                requester_pays: section.bool("requester_pays").unwrap_or(false),
                conditions: section
                    .choice(
                        "conditions",
                        &[
                            ("auto", Conditions::Auto),
                            ("require", Conditions::Require),
                            ("look", Conditions::Look),
                        ],
                    )
                    .unwrap_or_default(),
                verify_imported: section
                    .choice(
                        "verify_imported",
                        &[
                            ("always", VerifyImported::Always),
                            ("if-free", VerifyImported::IfFree),
                            ("never", VerifyImported::Never),
                        ],
                    )
                    .unwrap_or_default(),
                use_fips_endpoint,
                use_dualstack_endpoint,
                use_accelerate_endpoint,
                upload_bandwidth: bandwidth(&section, "upload_bandwidth", has_ledger),
                download_bandwidth: bandwidth(&section, "download_bandwidth", has_ledger),
            };
            section.finish();
            (id.is_some() && bucket.is_some()).then_some(target)
        })
        .collect()
}
