"""The embedded tasks: facts, inference and editing in ten languages, from Unicode CLDR names."""
