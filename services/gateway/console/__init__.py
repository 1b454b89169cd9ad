"""The ops console: pages for people who operate a pipeline, at ``/`` of the gateway.

Pages are rendered here, whole and readable without a script; a script of ours keeps them up to date by server-sent
events. What costs anything, as asking processes how they are or reading topics, is done while somebody looks and no
longer. Everything that comes from outside is escaped where it is written; the policy of each page allows no script,
style or address but ours.
"""
