"""The output of a program: streams that outlast their readers, and text that is safe to show."""
