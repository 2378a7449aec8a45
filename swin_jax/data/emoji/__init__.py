"""Pictures and animations drawn as emoji, in the styles of several vendors."""
