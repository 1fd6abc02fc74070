//! Tests of the whole server: recorded exchanges, sessions in virtual time, real files, real sockets.

mod crowd;
mod daemon;
mod documents;
mod files;
mod frozen_disk;
mod full_disk;
mod garbage;
mod killed;
mod odd_inputs;
mod operator;
mod promises;
mod recovery;
mod replay;
mod series;
mod sessions;
mod shield;
mod stock_client;
mod stock_model;
mod support;
