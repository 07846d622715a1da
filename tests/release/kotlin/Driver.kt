/** Runs the client of the kit for Android on the Java here, on folders instead of an app's files and assets. */
package com.example.fruit

import java.io.File
import java.util.concurrent.TimeUnit
import kotlin.system.exitProcess

fun main(words: Array<String>) {
    val given = mutableMapOf("timeout" to "15", "test" to "", "test-seconds" to "300", "app" to "0")
    val commands = mutableListOf<String>()
    var at = 0
    while (at < words.size) {
        if (words[at].startsWith("--")) given[words[at].substring(2)] = words[++at] else commands += words[at]
        at++
    }
    val kit = File(given.getValue("kit"))
    val state = File(given.getValue("state"))
    val names = kit.walkTopDown().filter { it.isFile }.map { it.relativeTo(kit).path }.toList()
    val updates = Updates(
        state,
        names,
        { File(kit, it).inputStream() },
        given.getValue("app").toLong(),
        given["url"],
        given["channel"],
        given.getValue("timeout").toDouble(),
        given.getValue("test-seconds").toLong(),
    ) { folder -> tested(given.getValue("test"), folder) }
    for (command in commands) {
        val answer = when (command) {
            "check" -> given["now"]?.let { updates.check(it.toDouble().toLong()) }.let { it ?: updates.check() }.let {
                mapOf("state" to it.state.name.lowercase(), "release" to it.release, "reason" to it.reason)
            }
            "start" -> updates.start().let { mapOf("release" to (it?.name ?: ""), "folder" to (it ?: kit).path) }
            "good" -> emptyMap<String, String>().also { updates.good() }
            else -> exitProcess(2)
        }
        println(Json.written(mapOf("did" to command) + answer))
    }
    exitProcess(0)
}

/** Runs a self-test; one that ends with 86 ends this program, as a crash in an app does. */
private fun tested(program: String, folder: File): String {
    if (program == "") return ""
    val process = ProcessBuilder(program, folder.path).redirectErrorStream(true).start()
    try {
        while (!process.waitFor(20, TimeUnit.MILLISECONDS)) continue
    } catch (stopped: InterruptedException) {
        process.descendants().forEach { it.destroyForcibly() }
        process.destroyForcibly()
        throw stopped
    }
    val said = process.inputStream.readBytes().decodeToString().trim()
    if (process.exitValue() == 86) Runtime.getRuntime().halt(86)
    return if (process.exitValue() == 0) "" else said.ifEmpty { "exit status ${process.exitValue()}" }
}
