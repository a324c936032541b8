//! The Admin API as its clients see it: requests and answers, most of them facts of APISIX's own test suite.

mod access;
mod configs;
mod consumers;
mod listing;
mod plugins;
mod references;
mod resources;
mod ssl;
mod support;
mod trouble;

use support::*;
