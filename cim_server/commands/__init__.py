"""The commands of ``cim``, a file for each family; `cim_server.cli` names them."""
