"""What a program says: streams that outlast their readers, and text that is safe to show."""
