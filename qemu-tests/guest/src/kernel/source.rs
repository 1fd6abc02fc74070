//! The image: all RAM of the memory map, at its physical address.
