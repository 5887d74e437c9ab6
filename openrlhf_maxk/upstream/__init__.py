"""OpenRLHF as it is installed: what of it is replaced (:mod:`.seams`), and its command line (:mod:`.command_line`)."""
