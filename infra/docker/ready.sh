# ready.sh <port>: whether /readyz on this container's port returns 200. Without a Node process, which would cost 100 ms
# of processor time for each check.
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 3 _ status _ <&3
[ "$status" = 200 ]
