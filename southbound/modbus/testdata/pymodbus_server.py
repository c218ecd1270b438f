"""A Modbus server with known values of every type in every order.

The transport is its first argument. It prints its port on one line when it is ready and ends with its input.
Registers start at 0, 100, 200 and 300 for the orders ABCD, CDAB, BADC, DCBA.
Unit 1 exists; holding and input registers are alike; from 400 on there are none.
"""
import asyncio
import ssl
import sys

from pymodbus.constants import Endian
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.payload import BinaryPayloadBuilder
from pymodbus.server.async_io import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.transaction import ModbusRtuFramer, ModbusSocketFramer

ORDERS = [(Endian.Big, Endian.Big), (Endian.Big, Endian.Little), (Endian.Little, Endian.Big), (Endian.Little, Endian.Little)]


def values(byteorder, wordorder):
    builder = BinaryPayloadBuilder(byteorder=byteorder, wordorder=wordorder)
    builder.add_16bit_int(-12345)
    builder.add_16bit_uint(54321)
    builder.add_32bit_int(-1234567890)
    builder.add_32bit_uint(3234567890)
    builder.add_64bit_int(-1234567890123456789)
    builder.add_64bit_uint(12345678901234567890)
    builder.add_32bit_float(71.3)
    builder.add_64bit_float(-2.718281828459045)
    builder.add_16bit_float(1.5)
    builder.add_string("Headgate")
    registers = [int.from_bytes(two, "big") for two in builder.build()]
    return registers + [0] * (100 - len(registers))


def server(context, mode, arguments):
    """tcp, rtu+tcp, tls CERTIFICATE KEY, or rtu PORT."""
    address = ("127.0.0.1", 0)
    if mode == "rtu":
        return ModbusSerialServer(context, framer=ModbusRtuFramer, port=arguments[0], baudrate=19200, timeout=1)
    if mode == "tls":
        ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ssl_context.load_cert_chain(*arguments)
        ssl_context.load_verify_locations(arguments[0])
        ssl_context.verify_mode = ssl.CERT_REQUIRED
        return ModbusTlsServer(context, framer=ModbusSocketFramer, address=address, sslctx=ssl_context)
    return ModbusTcpServer(context, framer=ModbusRtuFramer if mode == "rtu+tcp" else ModbusSocketFramer, address=address)


async def main():
    registers = [r for order in ORDERS for r in values(*order)]
    bits = [i % 3 == 0 for i in range(64)]
    unit = ModbusSlaveContext(
        hr=ModbusSequentialDataBlock(0, registers), ir=ModbusSequentialDataBlock(0, registers),
        co=ModbusSequentialDataBlock(0, bits), di=ModbusSequentialDataBlock(0, bits), zero_mode=True)
    context = ModbusServerContext(slaves={1: unit}, single=False)
    running = server(context, sys.argv[1], sys.argv[2:])
    if sys.argv[1] == "rtu":
        await running.start()
        print("ready", flush=True)
        serving = asyncio.ensure_future(running.serve_forever())
    else:
        serving = asyncio.ensure_future(running.serve_forever())
        await running.serving
        print(running.server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    serving.cancel()


asyncio.run(main())
