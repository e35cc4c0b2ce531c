#!/bin/sh
# ACLs of Kafka for one platform. Needs a broker with an authorizer and `allow.everyone.if.no.acl.found=false`.
#   BOOTSTRAP=kafka-1:9093 ADMIN=admin.properties sh kafka.sh
# Names as in docs/security.md: the platform `cdc`, topics `cdc.*`, Connect's own `cdc-connect-*`, users cdc-platform,
# cdc-worker and cdc-consumer. Deny wins over allow.
set -eu
acl() { kafka-acls.sh --bootstrap-server "$BOOTSTRAP" --command-config "$ADMIN" --add "$@"; }

# The control plane, proofs and alerts: all of the platform's topics, Connect's offsets to read, quotas, groups to look at.
acl --allow-principal User:cdc-platform --operation All --topic cdc. --resource-pattern-type prefixed
acl --allow-principal User:cdc-platform --operation Read --operation DescribeConfigs --topic cdc-connect- --resource-pattern-type prefixed
acl --allow-principal User:cdc-platform --operation Describe --operation DescribeConfigs --operation AlterConfigs --cluster
acl --allow-principal User:cdc-platform --operation Describe --operation Read --group '*'
acl --allow-principal User:cdc-platform --operation All --transactional-id cdc --resource-pattern-type prefixed

# Workers: Connect's own topics and groups, the data topics; nothing of what the control plane remembers.
acl --allow-principal User:cdc-worker --operation All --topic cdc-connect- --resource-pattern-type prefixed
acl --allow-principal User:cdc-worker --operation Read --operation Write --operation DescribeConfigs --topic cdc. --resource-pattern-type prefixed
acl --deny-principal User:cdc-worker --operation Read --operation Write --topic cdc.platform.state
acl --allow-principal User:cdc-worker --operation Read --group '*'
acl --allow-principal User:cdc-worker --operation Describe --cluster

# Consumers: the data topics, and not the platform's.
acl --allow-principal User:cdc-consumer --operation Read --topic cdc. --resource-pattern-type prefixed
acl --deny-principal User:cdc-consumer --operation Read --topic cdc.platform. --resource-pattern-type prefixed
acl --allow-principal User:cdc-consumer --operation Read --group cdc-consumer --resource-pattern-type prefixed
