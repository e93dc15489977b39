// The directory that a run writes: it does not exist, or it is complete. Until commit() everything goes to OUT.partial beside it.
#pragma once
#include <optional>
#include <string_view>

#include "io/file.h"

namespace signround {

class OutputDir {
 public:
  // Makes OUT.partial, and the directories above it. A left-over of a run that was killed is removed; one that another run is
  // writing, or that carries no mark of ours, is Error{usage}, and so is an OUT that exists unless force is given. With force OUT
  // must be a directory that does not hold `input`, the model that is being read.
  OutputDir(const Path& out, bool force, const Path& input);
  ~OutputDir();  // without commit() removes OUT.partial and leaves OUT alone
  OutputDir(const OutputDir&) = delete;
  OutputDir& operator=(const OutputDir&) = delete;

  const Path& path() const { return out_; }  // absolute; what commit() will make
  const Path& partial() const { return partial_; }  // what is there until then
  Path file(const Path& name);               // where to write OUT/name until then; makes the folders in between
  void write(const Path& name, std::string_view content);
  void copy(const Path& from, const Path& name);

  // Syncs everything to the disk and renames OUT.partial to OUT. An old OUT is moved aside for the moment of the renaming,
  // restored if that fails, and removed after.
  void commit();

 private:
  void claim_partial();

  Path out_, partial_, replaced_;
  bool force_;
  bool committed_ = false;
  std::optional<File> marker_;  // locked while we live
};

}  // namespace signround
