#!/bin/sh
# Replaces the containers of the services that it is given, one container after the other: each new one is healthy before
# an old one stops, so requests go on. Settings, secrets and the image are those that docker compose would use now.
#
#   infra/docker/rollout.sh token-service jobs gateway
#
# Options of docker compose (-f, -p, profiles) come from its variables: COMPOSE_FILE, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES.
# COMPOSE and DOCKER name the programs, `docker compose` and `docker` by default.
# Exits with 1, and leaves the remaining old containers running, when a new one does not become healthy.
set -eu
compose=${COMPOSE:-docker compose}
docker=${DOCKER:-docker}

usage() {
  echo "usage: infra/docker/rollout.sh SERVICE..., of token-service, jobs, gateway (in this order when several change)" >&2
  exit 2
}

[ $# -gt 0 ] || usage
for service in "$@"; do
  case $service in
    token-service | jobs | gateway | demo-upstream) ;;
    *) echo "rollout: $service cannot run twice, so it cannot be replaced without an interruption" >&2; usage ;;
  esac
done

# As an `up` does first: what .env sets goes into the secrets' files, and a new image migrates before it serves.
for once in secrets config migrate; do
  $compose run --rm --no-deps "$once"
done

# A container that was made here and does not become healthy would be taken for one of the old ones next time.
service=
old=
clean() {
  [ -n "$service" ] || return 0
  for container in $($compose ps --all --quiet "$service"); do
    case " $(echo $old) " in *" $container "*) ;; *) $docker rm --force "$container" >/dev/null ;; esac
  done
}
trap 'clean; exit 1' INT TERM

for service in "$@"; do
  for container in $($compose ps --all --quiet --status exited --status created --status dead --status restarting "$service"); do
    $docker rm --force "$container" >/dev/null
  done
  old=$($compose ps --quiet --status running "$service")
  count=$(printf '%s\n' "$old" | grep -c . || true)
  if [ "$count" -eq 0 ]; then
    echo "rollout: no container of $service runs; start it with: $compose up -d --wait" >&2
    exit 1
  fi
  n=0
  for container in $(echo $old); do
    n=$((n + 1))
    if ! $compose up --detach --wait --no-deps --no-recreate --scale "$service=$((count + 1))" "$service"; then
      $compose logs --tail 20 "$service" >&2
      clean
      echo "rollout: the new container of $service did not become healthy and was removed; its last lines are above" >&2
      exit 1
    fi
    $docker stop "$container" >/dev/null
    $docker rm "$container" >/dev/null
    old=$($compose ps --quiet --status running "$service")
    echo "rollout: $service $n of $count replaced"
  done
done
