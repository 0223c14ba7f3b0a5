-- Actions that a living mover can't carry out, for it is cut off from their MDT or their store: whoever reaches both may take
-- them. Releases that know nothing of it neither offer nor take.
ALTER TABLE lhsmtool_s3.action
    -- The incarnation of the mover that offers it, which has not begun it and does not before this is NULL again. Another one
    -- has the row: it was taken over since, and this says nothing.
    ADD COLUMN offered bigint,
    -- How often it was taken from a mover that offered it.
    ADD COLUMN hops    smallint NOT NULL DEFAULT 0;
CREATE INDEX action_offered ON lhsmtool_s3.action (offered) WHERE offered IS NOT NULL;
