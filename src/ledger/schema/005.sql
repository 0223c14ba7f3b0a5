-- What movers tell of themselves with each renewal, for whoever looks at the fleet and for limits that all share.
ALTER TABLE lhsmtool_s3.mover
    -- JSON, some hundred bytes. Whoever reads it leaves out what it doesn't know.
    ADD COLUMN told    text,
    -- The incarnation that told it. Another one has the row: it is of a release that tells nothing.
    ADD COLUMN told_by bigint;
