"""Files for the SuperGLUE and GLUE leaderboards."""
