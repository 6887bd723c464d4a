# Starts HAProxy. Reads from the environment:
#   TRUSTED_PROXIES   proxies in front of it, whose X-Forwarded-*, X-Real-IP and X-Request-Id are believed
#   PUBLIC_URL        with https, responses carry Strict-Transport-Security
#   TLS_CERTIFICATE   PEM file with the chain, its key beside it in <file>.key: port 8443 speaks TLS. Both are read
#                     again within ten seconds after they change; open connections go on.
set -eu
printf '%s' "${TRUSTED_PROXIES:-}" | tr ', ' '\n\n' | sed '/^$/d' >/tmp/trusted-proxies
case ${PUBLIC_URL:-} in https://*) export HSTS=1 ;; esac
[ -n "${TLS_CERTIFICATE:-}" ] || unset TLS_CERTIFICATE
config=/etc/haproxy/haproxy.cfg
haproxy -c -q -f $config
if [ -n "${TLS_CERTIFICATE:-}" ]; then
  sum() { cat "$TLS_CERTIFICATE" "$TLS_CERTIFICATE.key" 2>&1 | cksum; }
  (
    used=$(sum)
    while sleep 5; do
      seen=$(sum)
      [ "$seen" != "$used" ] || continue
      sleep 2
      [ "$(sum)" = "$seen" ] || continue
      used=$seen
      # A pair that cannot be used changes nothing.
      if haproxy -c -q -f $config; then kill -USR2 1; else echo 'reloading the TLS certificate failed: the previous one stays in use' >&2; fi
    done
  ) &
fi
exec haproxy -W -f $config
