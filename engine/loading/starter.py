"""The manifest that `engine init` writes."""

SCHEMA_FILE = "manifest.v1.schema.json"
"""The file beside a manifest that its first line names to editors."""
_STARTER = """\
# yaml-language-server: $schema=manifest.v1.schema.json
# Your editor offers keys and flow classes from that file; after installing plugins write it anew:
#   engine schema > manifest.v1.schema.json

apiVersion: engine/v1
# name: mine                      # owner of all that is made; default: the name of this file

# core: {address: "https://core.example.org:2021"}   # default: the engine's own core

users:
  user0:                          # on the engine's own core made at the first apply
    workers:
      dispatch: 1                 # processes that run flows
      get_instance: 1             # requests for instances served at once
    flows: {}                     # what user0 serves: write it below, and remove the {}
    #   reverse_number_atomic:    # the flow endpoint
    #     flow_class_name: reverse_number.ReverseNumberAtomicFlow   # see: engine flows
    #     singleton: true         # everybody gets the same one instance
    #     config_overrides: {}    # laid over the defaults of the class

  # user1:
  #   flows:
  #     reverse_number_sequential:
  #       flow_class_name: reverse_number.ReverseNumberSequentialFlow
  #       subflows:               # who serves each subflow of the class
  #         first_reverse_flow: {user_id: user0, flow_endpoint: reverse_number_atomic}
  #         second_reverse_flow: {user_id: user0, flow_endpoint: reverse_number_atomic}
  #   mounts:                     # instances that shall exist: engine call user1/twice
  #     twice:
  #       flow_endpoint: reverse_number_sequential
"""


def starter() -> str:
    """Return a commented manifest that is valid, and can be applied, as it is."""
    return _STARTER
