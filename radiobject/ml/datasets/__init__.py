"""From collections to samples and filled buffers."""
