// `plumb-infer generate` as a user runs it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "runtime/exec/seal.h"
#include "tests/infer/infer_program.h"

namespace plumb {
namespace {

TEST_F(PlumbInfer, GeneratesFromARunFolder) {
    ASSERT_EQ(generate("--prompt 'The prompt' --max-new-tokens 20"), 0) << error_;
    EXPECT_EQ(output_.size(), 30u);
    EXPECT_EQ(output_.substr(0, 10), "The prompt");
    EXPECT_EQ(error_.rfind("model: gpt2, ", 0), 0u) << error_;
    expect_in_error("vocabulary 256, context 64 tokens\nmemory: ");
    expect_in_error(" in arenas + ");
    expect_in_error("\nplan: ");
    expect_in_error("\ncheckpoint: " + step_5_ + ", step 5\n");
    expect_in_error("\ntokens: 20 new after 10 of the prompt; prefill ");
    expect_in_error("\npeak memory: ");
    if (!seal_is_enforced()) return;
    expect_in_error("\nallocations after seal: 0\n");
}

TEST_F(PlumbInfer, PromptsFromAFileAndStandardInput) {
    std::ofstream(path("prompt"), std::ios::binary) << std::string("from\0file", 9);
    ASSERT_EQ(generate("--max-new-tokens 5 --prompt-file " + path("prompt")), 0) << error_;
    const std::string output = output_;
    EXPECT_EQ(output.substr(0, 9), std::string("from\0file", 9));
    const std::string arguments =
        "generate --checkpoint " + path("bytes") + " --max-new-tokens 5 --prompt-file - ";
    ASSERT_EQ(run(arguments, "cat " + path("prompt") + " | "), 0) << error_;
    EXPECT_EQ(output_, output);
}

TEST_F(PlumbInfer, ACheckpointCanBeChosen) {
    ASSERT_EQ(run("generate --checkpoint " + step_3_ + " --prompt a --max-new-tokens 1"), 0)
        << error_;
    expect_in_error("\ncheckpoint: " + step_3_ + ", step 3\n");
}

TEST_F(PlumbInfer, SeedThreadsAndChunksAsPromised) {
    const std::string sampled = "--prompt abcdefgh --max-new-tokens 40 --temperature 1 --seed ";
    ASSERT_EQ(generate(sampled + "1"), 0) << error_;
    const std::string text = output_;
    ASSERT_EQ(generate(sampled + "1 --threads 2"), 0) << error_;
    EXPECT_EQ(output_, text);
    expect_in_error(", threads 2\n");
    ASSERT_EQ(generate(sampled + "2"), 0) << error_;
    EXPECT_NE(output_, text);
    ASSERT_EQ(generate("--prompt abcdefgh --max-new-tokens 40"), 0) << error_;
    const std::string greedy = output_;
    EXPECT_NE(greedy, text);
    ASSERT_EQ(generate("--prompt abcdefgh --max-new-tokens 40 --generate.prefill_chunk=3"), 0);
    EXPECT_EQ(output_, greedy);
}

TEST_F(PlumbInfer, StopsAtTheContext) {
    ASSERT_EQ(generate("--prompt abcd --max-new-tokens 100"), 0) << error_;
    EXPECT_EQ(output_.size(), 65u);
    expect_in_error("stopped: the context of 64 tokens is full; 61 of 100 new tokens are made\n");
}

TEST_F(PlumbInfer, TheReportBeginsALineOfItsOwn) {
    const std::string arguments =
        PLUMB_BIN_DIR "/plumb-infer generate --checkpoint " + path("bytes") + " --prompt abc ";
    ASSERT_EQ(generate("--prompt abc --max-new-tokens 4"), 0) << error_;
    ASSERT_EQ(output_.size(), 7u) << "in a pipe the text and nothing else";
    ASSERT_NE(output_.back(), '\n');
    ASSERT_EQ(std::system((arguments + "--max-new-tokens 4 >" + path("both") + " 2>&1").c_str()),
              0);
    const std::string both = contents(path("both"));
    EXPECT_NE(both.find("\n" + output_ + "\ntokens: 4 new "), std::string::npos) << both;
}

TEST_F(PlumbInfer, ASmallerContextIsASmallerCache) {
    const auto arena_bytes = [&] {
        const size_t at = error_.find("memory: ");
        return at == std::string::npos ? std::string() : error_.substr(at, error_.find('+', at));
    };
    ASSERT_EQ(generate("--prompt abcd --max-new-tokens 100"), 0) << error_;
    const std::string whole = arena_bytes(), text = output_;
    ASSERT_EQ(generate("--prompt abcd --max-new-tokens 100 --generate.context=8"), 0) << error_;
    EXPECT_NE(arena_bytes(), whole);
    EXPECT_EQ(output_, text.substr(0, 9));
    expect_in_error("context 8 tokens\nmemory: ");
    expect_in_error("stopped: the context of 8 tokens is full; 5 of 100 new tokens are made\n");
    EXPECT_EQ(generate("--prompt abcdefghi --generate.context=8"), 2);
    expect_one_error("the prompt has 9 tokens, but the context is 8 tokens (generate.context)");
    EXPECT_EQ(generate("--prompt abcd --generate.context=65"), 2);
    expect_one_error("generate.context is 65; it must be at most max_position_embeddings, 64");
    // What trained the model is of no matter here: its sequences had 8 tokens.
    EXPECT_EQ(generate("--prompt a --model.max_position_embeddings=4 --generate.context=4 "
                       "--generate.prefill_chunk=4"),
              2);
    expect_in_error("is of another model:");
    EXPECT_EQ(run("generate --help"), 0);
    EXPECT_NE(output_.find("--generate.context=TOKENS"), std::string::npos) << output_;
}

TEST_F(PlumbInfer, SamplingFlags) {
    const std::string text = "--prompt abcdefgh --max-new-tokens 40 --seed 3 ";
    ASSERT_EQ(generate(text), 0) << error_;
    const std::string greedy = output_;
    ASSERT_EQ(generate(text + "--temperature 1"), 0) << error_;
    const std::string sampled = output_;
    EXPECT_NE(sampled, greedy);
    ASSERT_EQ(generate(text + "--temperature 1 --top-k 1"), 0) << error_;
    EXPECT_EQ(output_, greedy);
    ASSERT_EQ(generate(text + "--temperature 1 --top-p 1e-9"), 0) << error_;
    EXPECT_EQ(output_, greedy);
    ASSERT_EQ(generate(text + "--temperature 1 --top-k 256 --top-p 1 --repetition-penalty 1"), 0);
    EXPECT_EQ(output_, sampled);
    ASSERT_EQ(generate(text + "--repetition-penalty 1000"), 0) << error_;
    std::sort(output_.begin(), output_.end());
    EXPECT_EQ(std::unique(output_.begin(), output_.end()), output_.end()) << "no byte twice";
}

TEST_F(PlumbInfer, StopStringsEndTheText) {
    const std::string text = "--prompt ab --max-new-tokens 20 --temperature 1.5 ";
    ASSERT_EQ(generate(text), 0) << error_;
    const std::string whole = output_;
    ASSERT_EQ(whole.size(), 22u);
    // Two bytes that a shell takes as they are, whatever the model has written.
    std::string escaped = "$'";
    for (const char character : whole.substr(12, 2))
        escaped += fmt::format("\\x{:02x}", static_cast<uint8_t>(character));
    const std::string command = "generate --checkpoint " + path("bytes") + " " + text +
                                "--stop nothing --stop " + escaped + "'";
    std::ofstream(path("stop.sh")) << "exec " PLUMB_BIN_DIR "/plumb-infer " << command << "\n";
    ASSERT_EQ(
        std::system(
            ("bash " + path("stop.sh") + " >" + path("stdout") + " 2>" + path("stderr")).c_str()),
        0);
    error_ = contents(path("stderr"));
    EXPECT_EQ(contents(path("stdout")), whole.substr(0, whole.find(whole.substr(12, 2), 2)));
    expect_in_error("stopped: at a stop string, after ");
}

TEST_F(PlumbInfer, SeveralPromptsAreWrittenOneAfterTheOther) {
    const std::string flags = " --max-new-tokens 6 --temperature 1 ";
    std::vector<std::string> alone;
    const char* prompts[] = {"'first one'", "b", "\"c c\""};
    for (int i = 0; i < 3; ++i) {
        ASSERT_EQ(generate(fmt::format("--prompt {} --seed {} {}", prompts[i], 1 + i, flags)), 0);
        alone.push_back(output_);
    }
    const std::string expected = "==> prompt 1 of 3 <==\n" + alone[0] +
                                 "\n==> prompt 2 of 3 <==\n" + alone[1] +
                                 "\n==> prompt 3 of 3 <==\n" + alone[2] + "\n";
    ASSERT_EQ(generate("--prompt 'first one' --prompt b --prompt 'c c'" + flags), 0) << error_;
    EXPECT_EQ(output_, expected);
    expect_in_error("context 64 tokens x 3 prompts\n");
    expect_in_error("\ntokens: 18 new after 13 of 3 prompts; prefill ");
    std::ofstream(path("lines")) << "b\r\nc c\r\n";
    for (const char* batch : {" --batch 1", " --batch 2", " --generate.batch=4"}) {
        ASSERT_EQ(generate("--prompt 'first one' --prompts " + path("lines") + flags + batch), 0)
            << error_;
        EXPECT_EQ(output_, expected) << batch;
    }
    ASSERT_EQ(generate("--prompt abc --prompt " + std::string(64, 'd') + flags), 0) << error_;
    expect_in_error("\nprompt 2: stopped: the context of 64 tokens is full; 1 of 6 new tokens");
    ASSERT_EQ(generate("--prompt-tokens 1,2 --prompt-tokens 3 --max-new-tokens 2"), 0) << error_;
    EXPECT_EQ(std::count(output_.begin(), output_.end(), '\n'), 2) << output_;
    EXPECT_EQ(output_.rfind("1,2,", 0), 0u) << output_;
    EXPECT_NE(output_.find("\n3,"), std::string::npos) << output_;
}

TEST_F(PlumbInfer, FallsBackFromADamagedCheckpoint) {
    fs::copy(path("bytes"), path("damaged"), fs::copy_options::recursive);
    const std::string name = fs::path(step_5_).filename();
    // The first chunk of the data file.
    flip_bit(path("damaged/") + name + "/data-00000.pck", 5000);
    const std::string arguments = " --prompt ab --max-new-tokens 4";
    ASSERT_EQ(run("generate --checkpoint " + path("damaged") + arguments), 0) << error_;
    expect_in_error("note: passed over " + path("damaged/") + name);
    expect_in_error(", step 3\n");
    EXPECT_EQ(run("generate --checkpoint " + path("damaged/") + name + arguments), 4) << error_;
    EXPECT_EQ(output_, "");
}

TEST_F(PlumbInfer, LargerVocabulariesTakeAndGiveIds) {
    save_checkpoint(small_config(ModelType::llama, 300, 16, path("wide")), 1);
    const std::string arguments = "generate --checkpoint " + path("wide") + " --max-new-tokens 4 ";
    ASSERT_EQ(run(arguments + "--prompt-tokens 299,0,7"), 0) << error_;
    EXPECT_EQ(output_.rfind("299,0,7,", 0), 0u) << output_;
    EXPECT_EQ(std::count(output_.begin(), output_.end(), ','), 6);
    EXPECT_EQ(output_.back(), '\n');
    EXPECT_EQ(run(arguments + "--prompt-tokens 300"), 2);
    expect_one_error("token id 300 is outside the vocabulary; it must be from 0 to 299");
    EXPECT_EQ(run(arguments + "--prompt text"), 2);
    expect_one_error("give token ids, as in --prompt-tokens 1,2,3");
}

TEST_F(PlumbInfer, RefusesPrompts) {
    EXPECT_EQ(generate("--prompt ''"), 2);
    expect_one_error("--prompt: the prompt is empty");
    EXPECT_EQ(generate("--prompt " + std::string(65, 'x')), 2);
    expect_one_error("the prompt has 65 tokens, but the context is 64 tokens");
    EXPECT_EQ(generate("--prompt-file /nonexistent"), 2);
    expect_one_error("--prompt-file: cannot read /nonexistent: No such file");
    EXPECT_EQ(generate("--prompt-file " + folder_), 2);
    expect_one_error("--prompt-file: cannot read " + folder_ + ": Is a directory");
    save_checkpoint(small_config(ModelType::gpt2, 100, 8, path("ascii")), 1);
    EXPECT_EQ(run("generate --checkpoint " + path("ascii") + " --prompt axe"), 2);
    expect_one_error(
        "--prompt, byte 1: token id 120 is outside the vocabulary; it must be from 0 "
        "to 99");
}

TEST_F(PlumbInfer, RefusesCheckpoints) {
    EXPECT_EQ(run("generate --prompt a --checkpoint " + path("nowhere")), 2);
    expect_one_error("no checkpoint in " + path("nowhere"));
    fs::create_directory(path("empty"));
    EXPECT_EQ(run("generate --prompt a --checkpoint " + path("empty")), 2);
    expect_one_error("no checkpoint in " + path("empty"));
    const std::string manifest = step_3_ + "/MANIFEST";
    EXPECT_EQ(run("generate --prompt a --checkpoint " + manifest), 2);
    expect_one_error("--checkpoint: " + manifest + " is a file; it must be a run's folder");
    EXPECT_EQ(generate("--prompt a --model.num_attention_heads=4"), 2);
    expect_in_error("is of another model:");
    expect_in_error("model.num_attention_heads");
}

TEST_F(PlumbInfer, RefusesFlags) {
    const struct {
        const char* arguments;
        const char* error;
    } cases[] = {
        {"", "A subcommand is required"},
        {"generate --prompt a", "--checkpoint is required"},
        {"generate --checkpoint x", "one of --prompt, --prompts, --prompt-file and "},
        {"generate --checkpoint x --prompt a --prompt-tokens 1", "exclude each other"},
        {"generate --checkpoint x --prompt a --tempreature 1", "unknown argument: --tempreature"},
        {"generate --checkpoint x --prompt a stray", "unknown argument: stray"},
        {"generate --checkpoint x --prompt a --max-new-tokens 0", "--max-new-tokens: 0 is below 1"},
        {"generate --checkpoint x --prompt a --max-new-tokens many", "many"},
        {"generate --checkpoint x --prompt a --temperature -1", "--temperature: -1"},
        {"generate --checkpoint x --prompt a --temperature nan", "--temperature: nan"},
        {"generate --checkpoint x --prompt a --seed -1", "-1"},
        {"generate --checkpoint x --prompt a --seed 99999999999999999999",
         "--seed: 99999999999999999999 is not an integer of at most 9223372036854775807"},
        {"generate --checkpoint x --prompt a --top-k 9223372036854775808", "--top-k: 92233720368"},
        {"perplexity --checkpoint x --text a --stride 1e2", "--stride: 1e2 is not an integer"},
        {"generate --checkpoint x --prompt a --top-k -1", "--top-k: -1 is below 0"},
        {"generate --checkpoint x --prompt a --top-p 0", "--top-p: 0 is not above 0"},
        {"generate --checkpoint x --prompt a --top-p 1.01", "--top-p: 1.01 is not above 0"},
        {"generate --checkpoint x --prompt a --top-p nan", "--top-p: nan is not above 0"},
        {"generate --checkpoint x --prompt a --repetition-penalty 0",
         "--repetition-penalty: 0 is not from 0.001 to 1000"},
        {"generate --checkpoint x --prompt a --repetition-penalty -2", "--repetition-penalty: -2"},
        {"generate --checkpoint x --prompt a --stop ''", "--stop: the text is empty"},
        {"generate --checkpoint x --prompt a --prompt-file b", "exclude each other"},
        {"generate --checkpoint x --prompts a --prompt-tokens 1", "exclude each other"},
        {"generate --checkpoint x --prompts /nowhere",
         "--prompts: cannot read /nowhere: No such file"},
        {"generate --checkpoint x --prompts /dev/null", "/dev/null is empty"},
        {"generate --checkpoint x --prompt-tokens 1 --stop a", "--stop: text is taken by prompts"},
        {"perplexity --text a", "--checkpoint is required"},
    };
    for (const auto& c : cases) {
        EXPECT_EQ(run(c.arguments), 2) << c.arguments;
        expect_one_error(c.error);
    }
    EXPECT_EQ(generate("--prompt a --threads none"), 2);
    expect_one_error("run.threads");
    EXPECT_EQ(generate("--prompt a --generate.prefil_chunk=3"), 2);
    expect_one_error("generate.prefill_chunk");
    EXPECT_EQ(generate("--prompt a --batch 0"), 2);
    expect_one_error("generate.batch is 0");
    EXPECT_EQ(generate("--prompt a --prompt ''"), 2);
    expect_one_error("--prompt 2: the prompt is empty");
    EXPECT_EQ(generate("--prompt a --prompt " + std::string(65, 'x')), 2);
    expect_one_error("--prompt 2: the prompt has 65 tokens, but the context is 64 tokens");
    EXPECT_EQ(generate("--prompt a --memory 1MiB"), 3);
    expect_one_error("run.memory is 1048576 bytes");
}

TEST_F(PlumbInfer, HelpHasAnExample) {
    EXPECT_EQ(run("--help"), 0);
    EXPECT_NE(output_.find("generate"), std::string::npos);
    EXPECT_EQ(run("generate --help"), 0);
    EXPECT_NE(output_.find("plumb-infer generate --checkpoint run --prompt"), std::string::npos);
    EXPECT_NE(output_.find("--repetition-penalty"), std::string::npos);
    EXPECT_EQ(run("perplexity --help"), 0);
    EXPECT_NE(output_.find("plumb-infer perplexity --checkpoint run --text"), std::string::npos);
    EXPECT_EQ(error_, "");
}

TEST_F(PlumbInfer, ReportsAFullDisk) {
    if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
    const std::string command = PLUMB_BIN_DIR "/plumb-infer generate --prompt a --checkpoint " +
                                path("bytes") + " >/dev/full 2>" + path("stderr");
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 4);
    error_ = contents(path("stderr"));
    expect_in_error("error: cannot write to standard output: No space left on device\n");
}

// The program is held in a write to a full pipe when the signal comes, and then ends by itself.
TEST_F(PlumbInfer, AnInterruptEndsTheTextWithASummary) {
    save_checkpoint(small_config(ModelType::llama, 256, 16384, path("long")), 1);
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const int capacity = ::fcntl(fds[1], F_SETPIPE_SZ, 4096);
    ASSERT_GE(capacity, 4096);
    ASSERT_LT(capacity, 16384);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::dup2(fds[1], STDOUT_FILENO);
        ::close(fds[0]);
        ::close(fds[1]);
        ::dup2(::open(path("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        ::execl(PLUMB_BIN_DIR "/plumb-infer", "plumb-infer", "generate", "--checkpoint",
                path("long").c_str(), "--prompt", "a", "--max-new-tokens", "16000", "--threads",
                "1", nullptr);
        ::_exit(127);
    }
    ::close(fds[1]);
    int held = 0;
    for (int i = 0; i < 6000 && held < capacity; ++i) {
        ::usleep(10'000);
        ::ioctl(fds[0], FIONREAD, &held);
    }
    EXPECT_EQ(held, capacity);
    ::kill(child, SIGINT);
    char buffer[4096];
    int64_t size_bytes = 0;
    for (ssize_t part; (part = ::read(fds[0], buffer, sizeof buffer)) > 0;) size_bytes += part;
    ::close(fds[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_LT(size_bytes, capacity + 10);
    error_ = contents(path("stderr"));
    expect_in_error("stopped: interrupted\ntokens: ");
}

}  // namespace
}  // namespace plumb
