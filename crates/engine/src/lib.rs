//! Space, slots and backings: where the bytes are, under a stable slot.
