/* A Modbus server on libmodbus, over TCP or RTU. Holding and input register n hold 3*n, coil and
 * discrete input n are n%3==0, 64 of each. It prints its port, or "ready", and ends with its input. */
#include <errno.h>
#include <modbus.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

static void fail(const char *what) {
	fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
	exit(1);
}

int main(int argc, char **argv) {
	int rtu = argc > 2 && strcmp(argv[1], "rtu") == 0;
	modbus_t *ctx = rtu ? modbus_new_rtu(argv[2], 19200, 'E', 8, 1) : modbus_new_tcp("127.0.0.1", 0);
	modbus_mapping_t *map = modbus_mapping_new(64, 64, 64, 64);
	if (ctx == NULL || map == NULL) fail("set up");
	for (int i = 0; i < 64; i++) {
		map->tab_registers[i] = map->tab_input_registers[i] = 3 * i;
		map->tab_bits[i] = map->tab_input_bits[i] = i % 3 == 0;
	}
	int s = -1;
	if (rtu) {
		modbus_set_slave(ctx, 1);
		if (modbus_connect(ctx) < 0) fail("connect");
		printf("ready\n");
	} else {
		struct sockaddr_in at;
		socklen_t size = sizeof at;
		if ((s = modbus_tcp_listen(ctx, 1)) < 0) fail("listen");
		if (getsockname(s, (struct sockaddr *)&at, &size) < 0) fail("getsockname");
		printf("%d\n", ntohs(at.sin_port));
	}
	fflush(stdout);
	if (!rtu && modbus_tcp_accept(ctx, &s) < 0) fail("accept");
	for (;;) {
		uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
		struct pollfd wait[2] = {{.fd = 0, .events = POLLIN}, {.fd = modbus_get_socket(ctx), .events = POLLIN}};
		if (poll(wait, 2, -1) < 0) fail("poll");
		if (wait[0].revents) return 0;
		int n = modbus_receive(ctx, query);
		if (n > 0) modbus_reply(ctx, query, n, map);
		else if (n < 0 && !rtu) return 0;
	}
}
