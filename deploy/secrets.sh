#!/bin/sh
# Writes deploy/.env, the environment of compose.yaml, with secrets that nobody else has.
# Secrets that are there already stay: they belong to the data that is kept under them.
set -euC
umask 077
file="$(dirname "$0")/.env"
if [ -e "$file" ]; then
    echo "secrets.sh: $file is there already" >&2
    exit 1
fi
secret() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}
cat > "$file" <<ENVIRONMENT
POSTGRES_ADMIN_PASSWORD=$(secret)
POSTGRES_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
OFFHOOK_SECRET_KEY=$(secret)
TURN_SECRET=$(secret)
PUBLIC_URL=${PUBLIC_URL:-https://chat.example.com}
TURN_REALM=${TURN_REALM:-example.com}
ENVIRONMENT
