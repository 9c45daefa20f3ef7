CREATE TABLE selections (
    id VARCHAR(40) NOT NULL,
    request_id VARCHAR(200) NOT NULL,
    request BYTEA NOT NULL,
    request_digest VARCHAR(64) NOT NULL,
    model VARCHAR(64) NOT NULL,
    strategy VARCHAR(64) NOT NULL,
    budget BIGINT NOT NULL,
    pool_uri TEXT NOT NULL,
    detached BOOLEAN NOT NULL,
    state VARCHAR(16) NOT NULL,
    owner VARCHAR(64) NOT NULL,
    lease_until FLOAT(53) NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    read BIGINT NOT NULL,
    total BIGINT NOT NULL,
    elapsed_seconds FLOAT(53) NOT NULL,
    stream_chunks BIGINT,
    created FLOAT(53) NOT NULL,
    updated FLOAT(53) NOT NULL,
    ended FLOAT(53),
    error_code VARCHAR(32) NOT NULL,
    error_reason VARCHAR(64) NOT NULL,
    error_message TEXT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (request_id)
);
CREATE INDEX ix_selections_state ON selections (state);
INSERT INTO selections VALUES (
    '1', 'one', '\x00ff', 'd', 'm', 'margin', 3, '/pool', true, 'pending', '', 0.0, false, 2, 5, 1.5, NULL,
    10.0, 11.0, NULL, '', '', ''
);
