"""The smallest program: two worker processes, one DSPy program, one answer. No network, no key."""

import trio

from dspex_pool.adapters.python_pool import PythonPool


async def main() -> None:
    async with PythonPool.open(pool_size=2) as pool:
        await pool.create_program("qa", "context, question -> answer")
        facts = "The Nile flows north through eleven countries. It reaches the sea in Egypt."
        reply = await pool.execute_program(
            "qa", {"context": facts, "question": "Where does it reach the sea?"}
        )
        print(reply["outputs"]["answer"])


if __name__ == "__main__":
    trio.run(main)
