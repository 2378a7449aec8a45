"""What every room builds on: errors, configs and the names in them, parameter trees, files."""
