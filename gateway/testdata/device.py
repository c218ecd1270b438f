# A Modbus TCP device on pymodbus: unit 7, holding registers 0..99 hold 1000+n,
# register 10 holds 713 (71.3 with scale 0.1), 20-21 hold the float32 230.1.
import asyncio
import struct
import sys

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartAsyncTcpServer

values = [1000 + n for n in range(100)]
values[10] = 713
values[20], values[21] = struct.unpack(">HH", struct.pack(">f", 230.1))
block = ModbusSequentialDataBlock(0, values)
slave = ModbusSlaveContext(hr=block, ir=block, zero_mode=True)
context = ModbusServerContext(slaves={7: slave}, single=False)
asyncio.run(StartAsyncTcpServer(context=context, address=("127.0.0.1", int(sys.argv[1]))))
