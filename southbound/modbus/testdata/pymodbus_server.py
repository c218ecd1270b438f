"""A Modbus TCP server with known values of every type in every order.

It prints its port on one line when it is ready and ends with its input.
Registers start at 0, 100, 200 and 300 for the orders ABCD, CDAB, BADC, DCBA.
Unit 1 exists; holding and input registers are alike; from 400 on there are none.
"""
import asyncio
import sys

from pymodbus.constants import Endian
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.payload import BinaryPayloadBuilder
from pymodbus.server.async_io import ModbusTcpServer

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
    registers = [int.from_bytes(two, "big") for two in builder.build()]
    return registers + [0] * (100 - len(registers))


async def main():
    registers = [r for order in ORDERS for r in values(*order)]
    unit = ModbusSlaveContext(
        hr=ModbusSequentialDataBlock(0, registers), ir=ModbusSequentialDataBlock(0, registers), zero_mode=True)
    context = ModbusServerContext(slaves={1: unit}, single=False)
    server = ModbusTcpServer(context, address=("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve_forever())
    await server.serving
    print(server.server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    serving.cancel()


asyncio.run(main())
