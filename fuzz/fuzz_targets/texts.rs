//! Texts that a person writes: the configuration of a dump, the guest's command line.
//!
//! What is accepted is sound, and what is refused is named.
#![no_main]

use debugnet_core::config::{PATH_MAX, TARGETS_MAX};
use debugnet_core::{Config, ConfigError};
use guest::cmdline::{Options, ParseError, SLOTS_MAX, SLOTS_MIN};

fn config(text: &str) {
    match Config::parse(text) {
        Ok(config) => {
            assert!((1..=TARGETS_MAX).contains(&config.targets.len()));
            for target in &config.targets {
                assert!(target.server.is_ipv4() && target.client != Some(target.server));
                assert!(target.herald_port != 0 && target.client_port != 0);
                assert!(target.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
            }
            assert!(config.path.len() <= PATH_MAX && config.deadline_us > 0);
            assert!((512..=config.max_payload).contains(&config.payload_len(u16::MAX)));
            assert_eq!(text.split_ascii_whitespace().filter(|w| w.starts_with("server=")).count(), config.targets.len());
        }
        Err(error) => {
            let shown = error.to_string();
            if let ConfigError::Word { found, .. } = &error {
                assert!(text.contains(found.as_str()), "{shown}");
            }
            assert!(!shown.is_empty());
        }
    }
}

fn command_line(text: &str) {
    match Options::parse(text) {
        Ok(options) => {
            assert!((SLOTS_MIN..=SLOTS_MAX).contains(&options.slots) && options.slots.is_power_of_two());
            assert!((1..=2).contains(&options.cpus));
            if let Ok(config) = options.config() {
                assert_eq!(config.check(), Ok(()));
            }
        }
        Err(ParseError::BadValue { key, value, expected }) => {
            assert!(text.contains(key) && text.contains(value) && !expected.is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    config(text);
    command_line(text);
});
