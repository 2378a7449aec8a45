"""The foundation of every room: errors, configs and the names in them, parameter trees, files."""
