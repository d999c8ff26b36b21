//! Bulk requests: cutting batches ([`batch`]), reading replies ([`response`]), how many at a time ([`concurrency`]), which
//! next ([`schedule`]), sending them ([`client`], [`service`]), what no answer means ([`unanswered`]).

pub mod batch;
pub mod client;
pub mod concurrency;
mod connections;
pub mod response;
pub mod schedule;
pub mod service;
pub mod unanswered;
