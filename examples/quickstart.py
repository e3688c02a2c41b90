"""The smallest program: two worker processes, one DSPy program, one answer. No network, no key."""

import trio

from dspex_pool import PythonPool

FACTS = "The Nile flows north through eleven countries. It reaches the sea in Egypt."


async def main() -> None:
    async with PythonPool.open(pool_size=2) as pool:
        await pool.configure_lm(model="dspex/extractive")
        await pool.create_program("qa", "context, question -> answer")
        inputs = {"context": FACTS, "question": "Where does it reach the sea?"}
        reply = await pool.execute_program("qa", inputs)
        print(reply["outputs"]["answer"])


if __name__ == "__main__":
    trio.run(main)
