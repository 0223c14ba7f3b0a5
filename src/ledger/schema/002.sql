-- Fences: what has to be known of a mover's node to evict it or to power it off, and who does that.
ALTER TABLE lhsmtool_s3.mover
    -- Its node's name and NIDs, and what the servers know its mount by.
    ADD COLUMN host         text,
    ADD COLUMN nids         text[],
    ADD COLUMN client_uuid  text,
    -- The incarnation that wrote these three. Another one has the row: it is of a release that writes none, and they say nothing.
    ADD COLUMN described_by bigint,
    -- The count of renewals with which it left in order. It has another one: it has come back since.
    ADD COLUMN left_at      bigint,
    -- The count of renewals with which it was found dead, when somebody took it on to fence its node. It has another one: it has
    -- come back since, and the two below say nothing.
    ADD COLUMN fence_of     bigint,
    -- The incarnation of the mover that runs the command.
    ADD COLUMN fencer       bigint,
    ADD COLUMN fenced       boolean NOT NULL DEFAULT false;
