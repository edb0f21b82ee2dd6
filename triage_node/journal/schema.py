"""The tables of the journal, one literal a table.

Times are seconds since 1970 (UTC). UIDs are text. Columns that hold JSON end in `_json`.
"""

from __future__ import annotations

SCHEMA_VERSION = 4

TABLES = """
create table if not exists associations (
    id              integer primary key,
    peer_ae         text not null,
    peer_address    text not null,
    opened_at       real not null,
    closed_at       real,
    ending          text              -- 'released', 'aborted', 'cut off' (receiver died); null while open
);

create table if not exists instances (
    id              integer primary key,   -- order of arrival; a job works on those up to its last_instance_id
    sop_instance_uid    text not null unique,
    sop_class_uid       text not null,
    transfer_syntax_uid text not null,
    study_instance_uid  text not null,
    series_instance_uid text not null,
    path            text not null,         -- relative to the state directory
    digest          text not null,         -- sha256 of the data set as received
    size_bytes      integer not null,
    association_id  integer,               -- null when adopted from the archive
    received_at     real not null,
    volumetric      integer not null,      -- 1: one slice or frame of a stack; 0: localizer, report and the like
    frames          integer not null,
    geometry_json   text                   -- position [3] and orientation [6] in mm and direction cosines, or null
);
create index if not exists instances_by_series on instances (study_instance_uid, series_instance_uid, id);

create table if not exists series (
    study_instance_uid  text not null,
    series_instance_uid text not null,
    modality        text not null,
    description     text not null,
    instances       integer not null,
    first_at        real not null,
    last_at         real not null,
    last_instance_id integer not null,
    state           text not null,         -- 'open' or 'closed'
    generation      integer not null,      -- how often it was closed
    closed_at       real,
    evidence_json   text,                  -- on what it was closed
    primary key (study_instance_uid, series_instance_uid)
);
create index if not exists series_by_state on series (state);

create table if not exists studies (
    study_instance_uid text primary key,
    accession_number text not null,
    description     text not null,
    study_date      text not null,
    arrived_at      real not null,
    state           text not null,         -- StudyState
    result_id       integer,               -- the current answer
    order_priority  text,                  -- OrderPriority; null: none came with the study
    revision        integer not null default 0  -- grows with every change of any study
);
create index if not exists studies_by_revision on studies (revision);
create trigger if not exists studies_added after insert on studies
begin
    update studies set revision = (select max(revision) + 1 from studies)
        where study_instance_uid = new.study_instance_uid;
end;
create trigger if not exists studies_changed after update
    of accession_number, description, study_date, arrived_at, state, result_id, order_priority on studies
begin
    update studies set revision = (select max(revision) + 1 from studies)
        where study_instance_uid = new.study_instance_uid;
end;

create table if not exists jobs (
    id              integer primary key,
    study_instance_uid text not null,
    generation      integer not null,
    last_instance_id integer not null,
    inputs_digest   text not null,
    priority        integer not null,
    state           text not null,         -- 'queued', 'running', 'done', 'superseded'
    owner           text,
    attempts        integer not null,
    created_at      real not null,
    claimed_at      real,
    finished_at     real,
    unique (study_instance_uid, generation)
);
create index if not exists jobs_to_claim on jobs (state, priority desc, id);

create table if not exists results (
    id              integer primary key,
    study_instance_uid text not null,
    generation      integer not null,
    series_instance_uid text,              -- the series that was judged
    assessment_json text,                  -- when judged
    not_analysed_json text,                -- when not
    passed_over_json text not null,        -- the other series and why
    identity_json   text not null,         -- from what the UIDs of the objects follow
    created_at      real not null,
    duration_s      real not null,
    unique (study_instance_uid, generation)
);

create table if not exists objects (
    sop_instance_uid text primary key,
    result_id       integer not null references results (id),
    kind            text not null,         -- ResultKind
    sop_class_uid   text not null,
    path            text not null,         -- relative to the state directory
    size_bytes      integer not null
);
create index if not exists objects_by_result on objects (result_id);

create table if not exists outbox (
    id              integer primary key,
    sop_instance_uid text not null references objects (sop_instance_uid),
    study_instance_uid text not null,
    destination     text not null,
    -- 'queued', 'stored', 'committed', 'confirmed', 'refused', 'given up', 'superseded'
    state           text not null,
    attempts        integer not null,
    queued_at       real not null,
    next_at         real not null,
    finished_at     real,
    tried_at        real,                  -- when the last attempt began: from then on the destination may have it
    stored_at       real,                  -- when the destination last said that it has the object ...
    committed_at    real,                  -- ... that it will keep it (storage commitment) ...
    confirmed_at    real,                  -- ... and that it finds it (read-back)
    commit_at       real,                  -- when commitment is asked for (again); null when it is not awaited
    commit_attempts integer not null default 0,
    find_at         real,                  -- when the object is looked for (again); null when that is not awaited
    find_attempts   integer not null default 0,
    resends         integer not null default 0,  -- how often the destination lost it and it was sent again
    unique (sop_instance_uid, destination)
);
create index if not exists outbox_due on outbox (destination, state, next_at);
create index if not exists outbox_uncommitted on outbox (destination, commit_at) where commit_at is not null;
create index if not exists outbox_unfound on outbox (destination, find_at) where find_at is not null;

create table if not exists deliveries (
    id              integer primary key,
    outbox_id       integer not null references outbox (id),
    at              real not null,
    -- C-STORE: 'stored', 'refused', 'failed'; commitment: 'commitment asked', 'committed', 'not committed',
    -- 'commitment failed'; read-back: 'confirmed', 'not found', 'read-back failed'
    state           text not null,
    status          integer,               -- DIMSE status or failure reason, where one came
    words           text not null
);
create index if not exists deliveries_by_object on deliveries (outbox_id);

create table if not exists commitments (
    transaction_uid text primary key,
    destination     text not null,
    study_instance_uid text not null,
    asked_at        real not null,
    accepted_at     real,                  -- when the N-ACTION was answered with success
    reported_at     real                   -- when the first N-EVENT-REPORT came
);

create table if not exists commitment_items (
    transaction_uid text not null references commitments (transaction_uid),
    outbox_id       integer not null references outbox (id),
    outcome         text,                  -- 'committed', 'not committed'; null until it was reported
    primary key (transaction_uid, outbox_id)
) without rowid;
create index if not exists commitment_items_by_object on commitment_items (outbox_id);

create table if not exists messages (
    id              integer primary key,
    result_id       integer not null references results (id),
    study_instance_uid text not null,
    destination     text not null,         -- name of a RIS
    state           text not null,         -- 'queued', 'acknowledged', 'refused', 'given up', 'superseded'
    attempts        integer not null,
    queued_at       real not null,
    next_at         real not null,
    finished_at     real,
    tried_at        real,                  -- when the last attempt began: from then on the RIS may have it
    acknowledged_at real,
    unique (result_id, destination)
);
create index if not exists messages_due on messages (destination, state, next_at);
create index if not exists messages_by_study on messages (study_instance_uid);

create table if not exists acknowledgements (
    id              integer primary key,
    message_id      integer not null references messages (id),
    at              real not null,
    state           text not null,         -- 'acknowledged', 'refused', 'failed'
    code            text,                  -- MSA-1: 'AA', 'AE', 'AR', 'CA', 'CE', 'CR'; null where none came
    words           text not null
);
create index if not exists acknowledgements_by_message on acknowledgements (message_id);

create table if not exists circuits (
    destination     text primary key,
    state           text not null,         -- 'answers', 'not reached'
    since           real not null,
    failures        integer not null,      -- in a row
    probe_at        real,                  -- when a destination that was not reached is tried next
    words           text not null
);

-- Reading tasks (PS3.4 annex CC). The one with the largest number is a study's current one.
create table if not exists workitems (
    workitem_uid    text primary key,      -- SOP Instance UID
    study_instance_uid text,               -- null: ordered, and nothing came yet that fits
    number          integer not null,      -- from 1, of the study's workitems
    accession_number text not null,        -- of the order; '' where there is none
    state           text not null,         -- StepState
    transaction_uid text,                  -- of the claim
    performer       text,                  -- who claimed it: a user's name, or 'AE ' and an AE title
    created_at      real not null,
    created_by      text not null,         -- '' where the node made it for images that came
    changed_at      real not null,
    claimed_at      real,
    ended_at        real,
    words           text not null default '',  -- why it was cancelled
    ordered_priority text,                 -- HIGH, MEDIUM, LOW, as the order said
    ordered_json    text,                  -- attributes of the order, DICOM JSON
    performed_json  text,                  -- attributes that the performer has set, DICOM JSON
    told_priority   text                   -- what subscribers were last told
);
create index if not exists workitems_by_study on workitems (study_instance_uid, number);
create index if not exists workitems_awaiting on workitems (accession_number) where study_instance_uid is null;
create index if not exists workitems_ordered on workitems (study_instance_uid) where ordered_priority is not null;
create index if not exists workitems_by_state on workitems (state);
create index if not exists workitems_claimed on workitems (claimed_at) where claimed_at is not null;

create table if not exists study_headers (
    study_instance_uid text primary key,
    header_json     text not null          -- whose study it is and who ordered it, from its first image, DICOM JSON
);

create table if not exists workitem_events (
    id              integer primary key,
    workitem_uid    text not null,
    at              real not null,
    kind            integer not null,      -- event type of PS3.4 table CC.2.4-1; 0: made or changed, for filters alone
    detail_json     text not null,
    only_for        text,                  -- AE title: the first report of a new subscription
    dispatched      integer not null default 0
);
create index if not exists workitem_events_new on workitem_events (id) where dispatched = 0;

create table if not exists subscriptions (
    ae_title        text not null,
    workitem_uid    text not null,
    active          integer not null,      -- 0: unsubscribed by name, so that a global subscription does not renew it
    deletion_lock   integer not null,
    primary key (ae_title, workitem_uid)
) without rowid;
create index if not exists subscriptions_by_workitem on subscriptions (workitem_uid) where active;

create table if not exists global_subscriptions (
    ae_title        text primary key,
    deletion_lock   integer not null,
    filter_json     text,                  -- matching keys, DICOM JSON; null: everything
    suspended       integer not null,      -- what is there already is reported on, what comes is not
    since           real not null
);

create table if not exists subscriber_owners (
    ae_title        text primary key,      -- of a subscriber by UPS-RS
    user_name       text not null,         -- who subscribed under it; counts as long as there is a subscription
    since           real not null
) without rowid;

create table if not exists reports (
    id              integer primary key,
    event_id        integer not null references workitem_events (id),
    ae_title        text not null,
    state           text not null,         -- 'queued', 'delivered', 'refused', 'given up'
    attempts        integer not null,
    queued_at       real not null,
    next_at         real not null,
    finished_at     real,
    words           text not null,
    unique (event_id, ae_title)
);
create index if not exists reports_due on reports (ae_title, id) where state = 'queued';

create table if not exists events (
    id              integer primary key,
    at              real not null,
    process         text not null,
    event           text not null,
    study_instance_uid text,
    detail_json     text not null
);
create index if not exists events_by_study on events (study_instance_uid, id);

create table if not exists sessions (
    digest          text primary key,      -- sha256 of the cookie: who reads the journal cannot take a session over
    user_name       text not null,
    password_mark   text not null,         -- of the password hash in the configuration when it was begun
    address         text not null,
    begun_at        real not null,
    used_at         real not null,         -- to the minute
    ended_at        real,
    ending          text                   -- why
);
create index if not exists sessions_by_user on sessions (user_name, address);
create index if not exists sessions_open on sessions (used_at) where ended_at is null;

-- Not among the events: these tell open pages that the list may have changed, and a look at a study changes nothing.
create table if not exists audit (
    id              integer primary key,
    at              real not null,
    process         text not null,
    event           text not null,         -- audit event ID, PS3.16 CID 400
    kind            text not null,         -- audit event type, PS3.16 CID 401; '' where there is none
    outcome         integer not null,      -- PS3.15 section A.5.1: 0 success, 4 minor failure, 8 serious failure
    user_name       text not null,
    role            text not null,
    address         text not null,
    study_instance_uid text,
    words           text not null
);
create index if not exists audit_by_study on audit (study_instance_uid, id) where study_instance_uid is not null;
"""

# What leads from a version of the schema to the next one, before TABLES adds what is new altogether.
MIGRATIONS = {
    1: """
alter table outbox add column stored_at real;
alter table outbox add column committed_at real;
alter table outbox add column confirmed_at real;
alter table outbox add column commit_at real;
alter table outbox add column commit_attempts integer not null default 0;
alter table outbox add column find_at real;
alter table outbox add column find_attempts integer not null default 0;
alter table outbox add column resends integer not null default 0;
update outbox set stored_at = finished_at where state = 'stored';
""",
    2: """
alter table outbox add column tried_at real;
update outbox set tried_at = coalesce(stored_at, (select max(at) from deliveries where outbox_id = outbox.id));
""",
    3: """
alter table studies add column order_priority text;
alter table studies add column revision integer not null default 0;
update studies set revision = rowid;
""",
}
