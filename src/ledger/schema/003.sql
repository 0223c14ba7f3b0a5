-- Two movers that have actions of one file at the same time: the order in which the rows came, and which of them wait.
-- Releases that know neither take no turns: their rows get a serial by the default, and never wait.
ALTER TABLE lhsmtool_s3.action
    ADD COLUMN serial bigserial,
    -- Not begun, for another mover is at the file. While it is false the action may be under way.
    ADD COLUMN behind boolean NOT NULL DEFAULT false;
