-- The first schema of a ledger. Each file here is one version, applied in a transaction of its own; none is ever changed
-- once a release had it.

-- What this is. A release reads a ledger whose version it knows, and a newer one whose `readable_from` it reaches.
CREATE TABLE lhsmtool_s3.schema_version (
    version        integer     NOT NULL PRIMARY KEY,
    readable_from  integer     NOT NULL,
    -- For people: the oldest release that can read and write this version, and the one that made it.
    oldest_release text        NOT NULL,
    made_by        text        NOT NULL,
    made           timestamptz NOT NULL DEFAULT now()
);

-- One ledger is of one file system: its name with the incarnation, as objects' metadata has it.
CREATE TABLE lhsmtool_s3.ledger (
    one         boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    file_system text    NOT NULL
);

-- Movers. A row is renewed some times in a lease, which is what others go by: no clock.
CREATE TABLE lhsmtool_s3.mover (
    name        text        NOT NULL PRIMARY KEY,
    -- Of the process: whoever renews has to know it.
    incarnation bigint      NOT NULL,
    -- Host and port where it answers HTTP; NULL: nowhere.
    address     text,
    archive_ids integer[]   NOT NULL,
    renewals    bigint      NOT NULL,
    -- 1 serving, 2 draining, 3 gone, 4 found dead: what it had is free for the taking, until it claims its row again.
    state       smallint    NOT NULL,
    release     text        NOT NULL,
    -- For people.
    since       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Actions that were taken in and are not over: in hand, or answered while something may be left of what they wrote.
CREATE TABLE lhsmtool_s3.action (
    -- 16 bytes: sequence, object, version, the most significant byte first.
    fid          bytea       NOT NULL,
    cookie       bigint      NOT NULL,
    -- The incarnation of the mover that has it.
    owner        bigint      NOT NULL,
    -- NULL: not known to whoever wrote it.
    mdt          integer,
    -- 1 archive, 2 restore, 3 remove; NULL: only an upload is known of it.
    verb         smallint,
    archive_id   integer,
    dfid         bytea,
    first_byte   bigint,
    length       bigint,
    gid          bigint,
    blocking     boolean,
    data         bytea,
    answered     boolean     NOT NULL DEFAULT false,
    -- What its archive writes; NULL: nothing yet.
    object_key   text,
    writer       text,
    upload_id    text,
    size         bigint,
    part_size    bigint,
    data_version bigint,
    -- The copy before, as JSON: archive id, key, ETag.
    previous     text,
    -- For people.
    begun        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fid, cookie)
-- Room for what an archive adds to its row: the new version stays on its page, and no index hears of it.
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
-- Whoever takes a dead one's over takes restores first.
CREATE INDEX action_owner ON lhsmtool_s3.action (owner, verb);

-- Where the copies of files are whose object can't be told from the FID, for the REMOVE of a file that is gone. `record`
-- is what trusted.lhsm_s3 had. The later `stamp` holds (milliseconds of its writer's clock: a wrong one costs a row).
CREATE TABLE lhsmtool_s3.copy (
    fid    bytea  NOT NULL PRIMARY KEY,
    stamp  bigint NOT NULL,
    record bytea  NOT NULL
) PARTITION BY HASH (fid);
DO $$
BEGIN
    FOR n IN 0..63 LOOP
        EXECUTE format('CREATE TABLE lhsmtool_s3.copy_%s PARTITION OF lhsmtool_s3.copy '
                       'FOR VALUES WITH (MODULUS 64, REMAINDER %s)', n, n);
    END LOOP;
END
$$;

-- REMOVEs that found no copy: whoever brings the row later deletes its object.
CREATE TABLE lhsmtool_s3.tombstone (
    fid        bytea       NOT NULL,
    archive_id integer     NOT NULL,
    taken      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fid, archive_id)
);
CREATE INDEX tombstone_taken ON lhsmtool_s3.tombstone (taken);
