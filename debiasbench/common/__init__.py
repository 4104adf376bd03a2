"""What every package rests on: errors, options, canonical JSON, files, processes."""
