-- +goose Up
-- +goose StatementBegin
-- waybill_guard fails the transaction with serialization_failure unless as many rows changed as were sent. COMMIT is
-- already in the pipeline behind the statement, so only an error can stop it.
CREATE FUNCTION waybill_guard(changed bigint, sent bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF changed <> sent THEN
        RAISE EXCEPTION 'guard: % of % rows changed', changed, sent USING ERRCODE = 'serialization_failure';
    END IF;
END
$$;
-- +goose StatementEnd
