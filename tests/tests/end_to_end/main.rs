//! The programs on a real Kafka and a real Elasticsearch. One program for all these tests, so that they share the two
//! servers; those that stop, cut or reconfigure a server start their own. Tests of a row of the failure catalogue
//! begin with the row's id.

mod access_tokens;
mod agreement;
mod certificates;
mod check_online;
mod compose;
mod deploy;
mod differential;
mod documents;
mod explain;
mod harness;
mod indexer_audit;
mod indexer_bulk;
mod indexer_classes;
mod indexer_consume;
mod indexer_dlq;
mod indexer_mapping;
mod indexer_rows;
mod indexer_rules;
mod indexer_security;
mod indexer_templates;
mod indexer_unanswered;
mod ledger_rig;
mod legacy;
mod monitoring;
mod packaging;
mod page;
mod pipeline;
mod public_scenarios;
mod reload;
mod reload_rig;
mod secured_kafka;
mod shipper;
mod shipper_broker;
mod shipper_events;
mod shipper_files;
mod shipper_formats;
mod shipper_ledger;
mod shipper_limits;
mod shipper_state;
mod shipper_status;
mod shipper_topics;
mod untrusted;
