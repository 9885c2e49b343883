//! Conversations as they pass on the wire, split at every place.
