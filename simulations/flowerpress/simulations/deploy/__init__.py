"""A deployment on machines of one's own: keys, a server, devices, and what checks them.

docs/deployment.md shows its use. Flower's processes do the work of the control plane
(``flower-superlink``, ``flower-supernode``); what is here makes their keys, starts them, says in
plain words why they do not start, and leaves nothing of them behind.

| module | does |
|---|---|
| ``authority`` | a certificate authority, and the server certificates that it signs |
| ``keys`` | the folder of certificates and node keys: made, shown, renewed |
| ``tls`` | one connection to a server: who answers, and what is wrong with its certificate |
| ``flower`` | Flower's commands, their environment, their processes at the end of a leash |
| ``exits`` | exit codes, for people and for supervisors |
"""
