"""The claims of the papers, tried at mini size: trials, verdicts, page and picture."""
