"""How settings are read from YAML, for the configs of a service and for those of the trainer.

section    the base of everything that has settings
yaml_text  YAML as people read it
values     a setting of type text takes what was typed
files      files with sections, and the lines of mistakes in them
"""
