// The test program: every tests/test_*.cpp registers its cases here. The last line is "N passed, N failed", counted in test
// cases; a line before it counts those that could not run here. doctest's own flags work: -tc=<name> runs one case.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "testing.h"

namespace {

unsigned run_cases = 0, failed_cases = 0;
std::string current_case;
std::set<std::string> skipped_cases;

struct Counter : doctest::IReporter {
  explicit Counter(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    run_cases = stats.numTestCasesPassingFilters;
    failed_cases = stats.numTestCasesFailed;
  }
  void test_case_start(const doctest::TestCaseData& data) override { current_case = data.m_name; }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};

}  // namespace

REGISTER_LISTENER("counter", 1, Counter);

void signround::skip(std::string_view reason) {
  skipped_cases.insert(current_case);
  std::printf("skipped: %s: %.*s\n", current_case.c_str(), static_cast<int>(reason.size()), reason.data());
}

int main(int argc, char** argv) {
  ::setenv("SIGNROUND_PLANS", "", 0);  // a test leaves nothing behind, and measures nothing but where it says so
  doctest::Context context(argc, argv);
  const int status = context.run();
  const unsigned skipped = static_cast<unsigned>(skipped_cases.size());
  if (skipped > 0) std::printf("%u skipped: they could not run here, see above\n", skipped);
  std::printf("%u passed, %u failed\n", run_cases - failed_cases - skipped, failed_cases);
  return status;
}
