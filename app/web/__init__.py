"""The page a person opens: a template, a stylesheet and a script, served as they are."""
