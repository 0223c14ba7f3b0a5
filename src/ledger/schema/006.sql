-- Bulk jobs, which run on any node, with a mover or without one: for whoever looks at them from another node, stops them from
-- there, or goes on with them there. Files are each node's own affair.
CREATE TABLE lhsmtool_s3.job (
    id       text        NOT NULL PRIMARY KEY,
    -- What it is to do, as JSON; NULL: that is too long for a row, and only its node knows.
    spec     text,
    -- The process that is at it, by a random number: whoever tells of the job has to know it.
    owner    bigint      NOT NULL,
    -- Where that runs, and what the mover of that configuration is called.
    node     text        NOT NULL,
    mover    text        NOT NULL,
    -- Tellings, which is what others go by: no clock.
    renewals bigint      NOT NULL,
    -- 1 running, 2 stopped, 3 ended, 4 failed, 5 cancelled.
    state    smallint    NOT NULL,
    -- How far it is, as JSON, some hundred bytes.
    told     text,
    -- It is to stop, and what it asked for with it.
    cancel   boolean     NOT NULL DEFAULT false,
    -- By those who want to go on with it and watch whether it lives: that they can write is what makes its silence count.
    looks    bigint      NOT NULL DEFAULT 0,
    -- When it was told of last, by the ledger's own clock, on which only what is shown depends.
    renewed  timestamptz NOT NULL DEFAULT now(),
    -- For people.
    created  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The names of a job that works off a list, as its node has them; none: it walks a tree, or they are too long for a row.
CREATE TABLE lhsmtool_s3.job_list (
    job   text  NOT NULL PRIMARY KEY REFERENCES lhsmtool_s3.job (id) ON DELETE CASCADE,
    names bytea NOT NULL
);
